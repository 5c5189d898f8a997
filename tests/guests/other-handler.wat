;; Its handler has the right name and no function.
(component
  (instance $handler)
  (export "tidegate:plugin/handler@0.1.0" (instance $handler)))
