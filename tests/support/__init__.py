"""What tests share: small models and data, quick runs, servers, a browser."""
