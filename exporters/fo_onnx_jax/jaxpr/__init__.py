"""JAX programs read and rewritten equation by equation, before a converter or the compiler gets them."""
