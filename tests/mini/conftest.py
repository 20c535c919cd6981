"""One cache for all tests of the embedded suite."""

from tests.caches import own_cache as own_cache
