;; Fails with a text that is no UTF-8.
(memory (export "memory") 1)
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
;; err(permanent(8192, 4)), and at 8192 bytes that no text has.
(data (i32.const 0) "\01\00\00\00\00\00\00\00\01\00\00\00\00\00\00\00\00\20\00\00\04\00\00\00")
(data (i32.const 8192) "\ff\fe\fd\fc")
(func (export "handle") (param i32) (result i32) (i32.const 0))
