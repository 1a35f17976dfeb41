// Loaded before Azurite: ends the process when its parent's end of stdin is gone.
process.stdin.resume();
process.stdin.on("close", () => process.exit(0));
process.stdin.on("error", () => process.exit(0));
