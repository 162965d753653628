"""The visual_ai schema: engine, tables and one repository per noun. All SQL lives here."""
