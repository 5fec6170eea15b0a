"""The sample site that corpusmill carries: two small magazines on loopback, with known faults planted in them."""
