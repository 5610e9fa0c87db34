"""Schemas of SQLite databases: read, built aside, and changed without loss. `editor.SQLiteEditor` is the way in."""
