;; Answers with a case that its type has not.
(memory (export "memory") 1)
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
(data (i32.const 0) "\07")
(func (export "handle") (param i32) (result i32) (i32.const 0))
