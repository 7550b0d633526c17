;; as it is
;; A component whose function is asynchronous, with a callback that is not of a callback's type.
(component
    (core module $module
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
        (func (export "yes") (param i32 i32) (result i32) (i32.const 1))
        (func (export "callback") (param i64) (result i64) (local.get 0)))
    (core instance $instance (instantiate $module))
    (func $yes async (param "text" string) (result bool)
        (canon lift (core func $instance "yes") async
            (callback (func $instance "callback"))
            (memory $instance "memory")
            (realloc (func $instance "realloc"))))
    (export "check-config" (func $yes))
    (export "validate" (func $yes)))
