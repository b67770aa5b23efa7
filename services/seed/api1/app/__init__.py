"""api1 in Python: takes telemetry records and writes them to MySQL.

The same contract as the Rust api1, behind the same manifests: FastAPI on
uvicorn, asyncmy for the database. `python -m app` runs it.
"""

VERSION = "1.0.0"
"""What answers say of the build they came from."""
