;; Fails with a text that ends far outside of its memory.
(memory (export "memory") 1)
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
;; err(permanent(4096, 0x7fffffff))
(data (i32.const 0) "\01\00\00\00\00\00\00\00\01\00\00\00\00\00\00\00\00\10\00\00\ff\ff\ff\7f")
(func (export "handle") (param i32) (result i32) (i32.const 0))
