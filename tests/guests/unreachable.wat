;; Does what it was built to say is impossible.
(memory (export "memory") 1)
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
(func $impossible (export "handle") (param i32) (result i32) unreachable)
