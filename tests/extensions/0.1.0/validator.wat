;; world: validator
;; Refuses for a reason made of all it was given but the number, with its configuration as details.
;; Each call writes its policy's id as a line, counts `calls` by the time and `chance` by a number drawn.
(module
    (import "beamline:extension/log@0.1.0" "write" (func $write (param i32 i32 i32)))
    (import "beamline:extension/clock@0.1.0" "now-ms" (func $now (result i64)))
    (import "beamline:extension/random@0.1.0" "next-u64" (func $next-u64 (result i64)))
    (import "beamline:extension/metrics@0.1.0" "count" (func $count (param i32 i32 i64)))
    (memory (export "memory") 4)
    ;; From 64 on: what is answered. From 128 on: names. From 512 on: a problem of a configuration.
    (data (i32.const 128) "calls")
    (data (i32.const 136) "chance")
    (data (i32.const 144) "/")
    ;; Hands out memory and takes none back.
    (global $free (mut i32) (i32.const 4096))
    (func $take (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
        (local $taken i32)
        (local.set $taken (i32.and
            (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
            (i32.sub (i32.const 0) (local.get $align))))
        (global.set $free (i32.add (local.get $taken) (local.get $size)))
        (local.get $taken))
    ;; A configuration of more than 64 bytes is one too many: it is told back at `/`.
    (func (export "check-config") (param $at i32) (param $length i32) (result i32)
        (i32.store (i32.const 512) (i32.gt_u (local.get $length) (i32.const 64)))
        (i32.store (i32.const 516) (i32.const 528))
        (i32.store (i32.const 520) (i32.const 1))
        (i32.store (i32.const 528) (i32.const 144))
        (i32.store (i32.const 532) (i32.const 1))
        (i32.store (i32.const 536) (local.get $at))
        (i32.store (i32.const 540) (local.get $length))
        (i32.const 512))
    (func $host (param $call i32)
        (call $write (i32.const 1) (i32.load offset=8 (local.get $call)) (i32.load offset=12 (local.get $call)))
        (call $count (i32.const 128) (i32.const 5) (call $now))
        (call $count (i32.const 136) (i32.const 6) (call $next-u64)))
    ;; Copies a text behind what was copied before, and a bar behind it.
    (func $add (param $text i32)
        (local $at i32) (local $length i32)
        (local.set $length (i32.load offset=4 (local.get $text)))
        (local.set $at (call $take (i32.const 0) (i32.const 0) (i32.const 1) (i32.add (local.get $length) (i32.const 1))))
        (memory.copy (local.get $at) (i32.load (local.get $text)) (local.get $length))
        (i32.store8 (i32.add (local.get $at) (local.get $length)) (i32.const 124)))
    ;; So many texts in a row become one, with a bar behind each. Where it begins; it ends where memory is free.
    (func $join (param $texts i32) (param $many i32) (result i32)
        (local $begin i32)
        (local.set $begin (global.get $free))
        (loop $again
            (call $add (local.get $texts))
            (local.set $texts (i32.add (local.get $texts) (i32.const 8)))
            (br_if $again (local.tee $many (i32.sub (local.get $many) (i32.const 1)))))
        (local.get $begin))
    (func (export "validate") (param $call i32) (result i32)
        (call $host (local.get $call))
        ;; ok, and reject.
        (i32.store (i32.const 68) (i32.const 1))
        (i32.store (i32.const 72) (call $join (local.get $call) (i32.const 6)))
        (drop (call $join (i32.add (local.get $call) (i32.const 52)) (i32.const 4)))
        (i32.store (i32.const 76) (i32.sub (global.get $free) (i32.load (i32.const 72))))
        (i64.store align=4 (i32.const 80) (i64.load offset=40 align=4 (local.get $call)))
        (i32.const 64))
)
