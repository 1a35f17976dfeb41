"""The JobStore port and its adapters; `base` says what every store promises."""
