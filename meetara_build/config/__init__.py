"""What people and agents write below conf/, read, checked and composed: the schema, the files, what
lies over them."""
