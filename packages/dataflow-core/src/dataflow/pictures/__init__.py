"""Pictures of workflows and models, as Mermaid or SVG text.

`layout` finds places for boxes and links, `shapes` writes the parts of an SVG that all pictures share, `workflows` and
`models` draw. Pure functions over small records: none knows a database, a file or the objects it draws for. The same
input gives the same text.
"""
