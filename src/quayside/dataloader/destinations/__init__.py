"""Where rows go: DuckLake (default) and Delta, behind one protocol (`destination`)."""
