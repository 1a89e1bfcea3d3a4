"""The workers: they go out and fetch. They use `service`, which never imports them."""
