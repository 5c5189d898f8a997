;; What makes a plugin of the core modules beside this file: put one where it says MODULE.
(component
  (import "tidegate:plugin/types@0.1.0" (instance $types
    (type $extension' (record (field "name" string) (field "value" string)))
    (export "extension" (type $extension (eq $extension')))
    (type $event' (record
      (field "id" string) (field "source" string) (field "kind" string)
      (field "subject" (option string)) (field "time" (option string))
      (field "datacontenttype" (option string)) (field "dataschema" (option string))
      (field "extensions" (list $extension)) (field "data" (list u8))))
    (export "event" (type (eq $event')))
    (type $transient' (record (field "reason" string) (field "retry-after-ms" (option u64))))
    (export "transient" (type $transient (eq $transient')))
    (type $failure' (variant (case "transient" $transient) (case "permanent" string)))
    (export "failure" (type (eq $failure')))))
  (alias export $types "event" (type $event))
  (alias export $types "failure" (type $failure))
  (core module $module
    ;; MODULE
  )
  (core instance $instance (instantiate $module))
  (alias core export $instance "memory" (core memory $memory))
  (alias core export $instance "cabi_realloc" (core func $realloc))
  (alias core export $instance "handle" (core func $core))
  (func $handle (param "event" $event) (result (result (error $failure)))
    (canon lift (core func $core) (memory (core memory $memory)) (realloc (core func $realloc)) string-encoding=utf8))
  (instance $handler
    (export "event" (type $event))
    (export "failure" (type $failure))
    (export "handle" (func $handle)))
  (export "tidegate:plugin/handler@0.1.0" (instance $handler)))
