;; A plugin that asks for what only a newer contract has.
(component
  (import "tidegate:plugin/outbox@0.2.0" (instance))
  (instance $handler)
  (export "tidegate:plugin/handler@0.1.0" (instance $handler)))
