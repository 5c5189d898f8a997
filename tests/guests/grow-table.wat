;; Grows its table until it is refused, and then gives up.
(memory (export "memory") 1)
(table $t 1 funcref)
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
(func $grow_table (export "handle") (param i32) (result i32)
  (loop $again
    (br_if $again (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 1000)))))
  unreachable)
