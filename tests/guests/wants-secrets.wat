;; A plugin that asks for what nobody gives.
(component
  (import "acme:secrets/store@1.0.0" (instance))
  (instance $handler)
  (export "tidegate:plugin/handler@0.1.0" (instance $handler)))
