"""A strict stand-in for JARAI: its Partner API, its webhooks and its blob store, with every fault they may show.

It imports nothing from `service`: what checks the receiver must not share code with it.
"""
