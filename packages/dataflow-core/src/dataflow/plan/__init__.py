"""Plans: what a shape of call compiles to, once, and how it runs. Nothing here knows a driver."""
