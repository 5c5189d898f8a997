;; Has 125 MiB of memory when it starts.
(memory (export "memory") 2000)
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
(func (export "handle") (param i32) (result i32) (i32.const 0))
