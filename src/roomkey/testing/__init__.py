"""What others need to test against Roomkey: conformance suites, fakes, and an echo server."""
