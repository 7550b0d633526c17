;; as it is
;; A component with the names of a validator's exports, and other types.
(component
    (core module $module
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
        (func (export "yes") (param i32 i32) (result i32) (i32.const 1)))
    (core instance $instance (instantiate $module))
    (func $yes (param "text" string) (result bool)
        (canon lift (core func $instance "yes")
            (memory $instance "memory")
            (realloc (func $instance "realloc"))))
    (export "check-config" (func $yes))
    (export "validate" (func $yes)))
