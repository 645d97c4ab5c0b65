"""Programs with real peers (examples/clients), run on stock asyncio and on ouroloop.

Each server is a module with `serve(directory, certificates)`: a context manager that installs
nothing, starts the server on 127.0.0.1 with all its files in a directory, gives the environment
variables that lead a client to it, and stops it by its process id.
"""
