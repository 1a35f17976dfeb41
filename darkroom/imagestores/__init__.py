"""The ImageStore port and its adapters; `base` says what every store promises."""
