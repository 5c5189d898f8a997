;; A plugin of a contract that is yet to come.
(component
  (instance $handler)
  (export "tidegate:plugin/handler@0.2.0" (instance $handler)))
