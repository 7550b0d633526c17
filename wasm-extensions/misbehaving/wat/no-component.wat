;; as it is
;; A module, not a component: what a compiler makes before componentize.
(module
    (memory (export "memory") 1)
    (func (export "validate") (param i32) (result i32) (i32.const 0)))
