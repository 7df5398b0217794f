"""What a store holds: tables, arrays and manifests, column by column."""
