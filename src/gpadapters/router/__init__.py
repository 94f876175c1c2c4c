"""The data path of the global router: one public endpoint in front of private pools.

`choose` decides, `forward` carries a request there and its answer back, `stream` counts what passes. `running.run` is
the way in; everything around the data path (health, metrics, reloading) is on another port.
"""
