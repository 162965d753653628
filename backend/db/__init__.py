"""The visual_ai schema: engine, tables and one repository for each noun. All SQL lives here."""
