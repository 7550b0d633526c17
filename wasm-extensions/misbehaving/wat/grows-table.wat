;; world: validator
;; Asks for a table of a million entries, and fails with table_refused where it gets none.
(module
    (memory (export "memory") 16)
    (table $table 1 funcref)
    ;; err, and then what the failure's code and message are.
    (data (i32.const 64) "\01\00\00\00" "\80\00\00\00\0d\00\00\00" "\90\00\00\00\0d\00\00\00")
    (data (i32.const 128) "table_refused")
    (data (i32.const 144) "was not given")
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
    (func (export "validate") (param i32) (result i32)
        (select (i32.const 64) (i32.const 0)
            (i32.eq (i32.const -1) (table.grow $table (ref.null func) (i32.const 1000000)))))
)
