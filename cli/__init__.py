"""The `darkroom` command. Heavy imports live inside the commands, so that `--help` is quick."""
