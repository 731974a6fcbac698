"""Sessions in a database: PostgreSQL, MariaDB or MySQL, SQLite."""
