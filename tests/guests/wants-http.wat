;; A plugin that asks for HTTP.
(component
  (import "wasi:http/outgoing-handler@0.2.4" (instance))
  (instance $handler)
  (export "tidegate:plugin/handler@0.1.0" (instance $handler)))
