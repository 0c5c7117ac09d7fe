// The products are those of cuBLASLt.
