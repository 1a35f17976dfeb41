"""The JobQueue port and its adapters; `base` says what every queue promises."""
