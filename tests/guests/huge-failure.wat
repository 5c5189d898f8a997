;; Fails with a text of 40 MiB.
(memory (export "memory") 700)
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
;; err(permanent(4096, 40 MiB))
(data (i32.const 0) "\01\00\00\00\00\00\00\00\01\00\00\00\00\00\00\00\00\10\00\00\00\00\80\02")
(func (export "handle") (param i32) (result i32) (i32.const 0))
