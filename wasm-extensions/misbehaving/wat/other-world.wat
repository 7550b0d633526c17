;; as it is
;; A component of a world that is not one of ours.
(component
    (core module $module
        (func (export "run") (result i32) (i32.const 42)))
    (core instance $instance (instantiate $module))
    (func (export "run") (result u32) (canon lift (core func $instance "run"))))
