"""What benches/run.py is made of: processes, servers, load generators, tables, and one module per part."""
