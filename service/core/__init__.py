"""The pure core: values in, values out. No clock, no dice, no network, no Redis, no logging."""
