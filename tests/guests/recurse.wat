;; Calls itself for ever, on the engine's own stack.
(memory (export "memory") 1)
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
(func $deeper (param i32) (result i32) (i32.add (i32.const 1) (call $deeper (local.get 0))))
(func (export "handle") (param i32) (result i32) (call $deeper (local.get 0)))
