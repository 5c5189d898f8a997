;; It calls the outbox in its own way.
(component
  (import "tidegate:plugin/outbox@0.1.0" (instance (export "emit" (func (param "text" string)))))
  (instance $handler)
  (export "tidegate:plugin/handler@0.1.0" (instance $handler)))
