;; A component of another world.
(component
  (instance $run)
  (export "wasi:cli/run@0.2.6" (instance $run)))
