;; world: validator
;; Refuses for a reason that is no UTF-8.
(module
    (memory (export "memory") 16)
    ;; ok, reject, and where the reason and the details are.
    (data (i32.const 64) "\00\00\00\00" "\01\00\00\00" "\84\00\00\00\04\00\00\00" "\80\00\00\00\02\00\00\00")
    (data (i32.const 128) "{}")
    (data (i32.const 132) "\ff\fe\c0\80")
    ;; Hands out memory and takes none back.
    (global $next (mut i32) (i32.const 4096))
    (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
        (global.set $next (i32.and
            (i32.add (global.get $next) (i32.sub (local.get $align) (i32.const 1)))
            (i32.sub (i32.const 0) (local.get $align))))
        (global.get $next)
        (global.set $next (i32.add (global.get $next) (local.get $size))))
    ;; Sixteen zero bytes: everything is well.
    (func (export "check-config") (param i32 i32) (result i32) (i32.const 0))
    (func (export "validate") (param i32) (result i32) (i32.const 64))
)
