"""A Service Bus emulator: AMQP 1.0 and the admin API, for the unmodified Azure SDKs."""
