#!/usr/bin/env escript
%% -*- erlang -*-
%%! -kernel logger_level warning
%% The Router's HEIR client, on nothing but Erlang/OTP: the same calls, the same
%% timeout, the same fallback to the last good copy. See README.md beside this file.
-mode(compile).

-define(PROFILE, heir).
-define(TIMEOUT_MS, 5000).
-define(MAX_BODY, 10485760).

%% `name` is the store as the caller gave it, `origin` the part of every URL before the
%% path. `down` is why there is no connection, or none when there is one. `cache` maps
%% {Tenant, Policy} to the last good document.
-record(client, {name, origin, down = "not connected", cache = #{}}).

main(Args) ->
    log_to_stderr(),
    try run(Args, "http://localhost:8080") of
        Code -> halt(Code)
    catch
        throw:{usage, Text} ->
            complain("~ts~nTry: router_client.escript --help", [Text]),
            halt(64)
    end.

run(["--help" | _], _) -> io:put_chars(help()), 0;
run(["--url", Url | Rest], _) -> run(Rest, check_url(Url));
run(["--unix", Path | Rest], _) -> run(Rest, {unix, Path});
run(["-" ++ _ = Option | _], _) ->
    throw({usage, ["unknown option, or one without its value: ", Option]});
run([], _) -> throw({usage, "no command given"});
run(["session"], Where) -> session(connect(open(Where)));
run(Command, Where) -> once(parse(Command), open(Where)).

help() ->
    "usage: router_client.escript [--url URL | --unix PATH] COMMAND\n"
    "\n"
    "Talks to a policy store exactly as the Beamline Router does.\n"
    "\n"
    "  --url URL     the store, default http://localhost:8080\n"
    "  --unix PATH   the store's Unix socket, instead of a URL\n"
    "\n"
    "commands:\n"
    "  health                   GET /health, must be 200\n"
    "  get TENANT POLICY        print the policy document\n"
    "  put TENANT POLICY FILE   store FILE as the policy document\n"
    "  delete TENANT POLICY     delete the policy\n"
    "  list TENANT              print the tenant's policies\n"
    "  session                  read these commands from standard input, one a line,\n"
    "                           answer one line each; keeps a cache of last good\n"
    "                           documents and falls back to it, as the Router does\n"
    "\n"
    "answers (on standard error, except in a session):\n"
    "  ok health 200\n"
    "  ok get 200 FRESHNESS SOURCE SHA256    FRESHNESS, SOURCE: x-beamline-* headers, or -\n"
    "  ok put 200|201 [queued]\n"
    "  ok delete 200|204 [queued]\n"
    "  ok list 200 COUNT SHA256\n"
    "  not_found\n"
    "  fallback SHA256 | fallback deleted | fallback list COUNT    (session only)\n"
    "  error REASON\n"
    "\n"
    "exit status: 0 ok, 1 not found, 2 the store failed, 64 wrong usage\n".

%% === commands ===

parse(["health"]) -> health;
parse(["get", Tenant, Policy]) -> {get, Tenant, Policy};
parse(["put", Tenant, Policy, File]) -> {put, Tenant, Policy, read_document(File)};
parse(["delete", Tenant, Policy]) -> {delete, Tenant, Policy};
parse(["list", Tenant]) -> {list, Tenant};
parse([]) -> throw({usage, "empty line"});
parse([Name | _]) -> throw({usage, ["unknown command or wrong number of arguments: ", Name]}).

read_document(File) ->
    case file:read_file(File) of
        {ok, Body} ->
            is_object(Body) orelse throw({usage, [File, " does not hold one JSON object"]}),
            Body;
        {error, Why} ->
            throw({usage, ["cannot read ", File, ": ", file:format_error(Why)]})
    end.

%% One command, one process: there is no cache to fall back to.
once(Command, Client) ->
    case call(Command, Client) of
        {ok, Line, Body} -> io:put_chars(Body), complain("~ts", [Line]), 0;
        not_found -> complain("not_found", []), 1;
        {_, Reason} -> complain("error ~ts: ~ts", [Client#client.name, Reason]), 2
    end.

session(Client) ->
    case io:get_line("") of
        eof -> 0;
        {error, Reason} -> complain("cannot read standard input: ~tp", [Reason]), 2;
        Line ->
            {Answer, Next} = session_line(string:lexemes(Line, " \t\r\n"), Client),
            io:format("~ts~n", [Answer]),
            session(Next)
    end.

session_line(Words, Client) ->
    try parse(Words) of
        Command -> answer(Command, reconnect(Command, Client))
    catch
        throw:{usage, Text} -> {["error ", Text], Client}
    end.

%% === the Router's rules: what the cache learns, and when it answers ===

answer(health, #client{down = none} = Client) -> {"ok health 200", Client};
answer(health, Client) -> {["error ", Client#client.down], Client};
answer(Command, #client{down = none} = Client) ->
    case call(Command, Client) of
        {ok, Line, Body} -> {Line, learn(Command, Body, Client)};
        not_found -> {"not_found", forget(Command, Client)};
        {upstream, Reason} -> fall_back(Command, Reason, Client);
        {unreachable, Reason} -> fall_back(Command, Reason, Client#client{down = Reason})
    end;
answer(Command, Client) -> fall_back(Command, Client#client.down, Client).

learn({get, T, P}, Body, Client) -> cache({T, P}, Body, Client);
learn({put, T, P, Body}, _, Client) -> cache({T, P}, Body, Client);
learn({delete, _, _} = Command, _, Client) -> forget(Command, Client);
learn({list, T}, Body, #client{cache = Cache} = Client) ->
    {ok, Documents} = listed(Body),
    Others = maps:filter(fun({Tenant, _}, _) -> Tenant =/= T end, Cache),
    Fresh = maps:from_list([{{T, Id}, Document} || {Id, Document} <- Documents]),
    Client#client{cache = maps:merge(Others, Fresh)}.

%% A 404 is the store's word that there is no such policy: no reason to keep an old copy.
forget({_, T, P}, #client{cache = Cache} = Client) -> Client#client{cache = maps:remove({T, P}, Cache)};
forget({put, T, P, _}, Client) -> forget({delete, T, P}, Client);
forget({list, T}, Client) -> learn({list, T}, <<"[]">>, Client).

fall_back(Command, Reason, Client) ->
    case from_cache(Command, Client) of
        none -> {["error ", Reason], Client};
        {Answer, Next} ->
            complain("warning: ~ts: ~ts; using the local copy", [Client#client.name, Reason]),
            {Answer, Next}
    end.

from_cache({get, T, P}, #client{cache = Cache} = Client) ->
    case Cache of
        #{{T, P} := Body} -> {["fallback ", sha256(Body)], Client};
        #{} -> none
    end;
from_cache({put, T, P, Body}, Client) -> {["fallback ", sha256(Body)], cache({T, P}, Body, Client)};
from_cache({delete, _, _} = Command, Client) -> {"fallback deleted", forget(Command, Client)};
from_cache({list, T}, #client{cache = Cache} = Client) ->
    Count = length([P || {Tenant, P} <- maps:keys(Cache), Tenant =:= T]),
    {io_lib:format("fallback list ~b", [Count]), Client}.

cache(Key, Body, #client{cache = Cache} = Client) -> Client#client{cache = Cache#{Key => Body}}.

%% === connecting ===

open({unix, Path}) ->
    start_http([{ipfamily, local}, {unix_socket, Path}]),
    #client{name = Path, origin = "http://localhost"};
open(Url) ->
    start_http([]),
    #client{name = Url, origin = Url}.

%% A profile of its own, because httpc's options are the profile's, not the request's.
start_http(Options) ->
    [{ok, _} = application:ensure_all_started(App) || App <- [inets, ssl]],
    {ok, _} = inets:start(httpc, [{profile, ?PROFILE}]),
    ok = httpc:set_options(Options, ?PROFILE).

check_url(Url) ->
    case uri_string:parse(Url) of
        #{scheme := Scheme, host := [_ | _], path := Path}
          when (Scheme =:= "http" orelse Scheme =:= "https"), (Path =:= "" orelse Path =:= "/") ->
            string:trim(Url, trailing, "/");
        _ -> throw({usage, ["--url wants something like http://localhost:8080, not ", Url]})
    end.

connect(Client) ->
    Asked = probe(Client),
    Asked#client.down =:= none orelse
        complain("warning: ~ts: ~ts; local copies only until it answers",
                 [Asked#client.name, Asked#client.down]),
    Asked.

%% The Router's sketch connects once, its requirements ask for reconnection: while there
%% is no connection, every command of a session tries for one first. `health` always asks.
reconnect(health, Client) -> probe(Client);
reconnect(_, #client{down = none} = Client) -> Client;
reconnect(_, Client) -> probe(Client).

probe(Client) ->
    case call(health, Client) of
        {ok, _, _} -> Client#client{down = none};
        {_, Reason} -> Client#client{down = Reason}
    end.

%% === the calls ===

call(health, Client) ->
    case request(get, "/health", Client) of
        {200, _, _} -> {ok, "ok health 200", ""};
        {failed, Reason} -> {unreachable, Reason};
        Answer -> {upstream, refusal(Answer)}
    end;
call({get, T, P}, Client) ->
    case request(get, path([T, P]), Client) of
        {200, Headers, Body} ->
            case is_object(Body) of
                true ->
                    Line = ["ok get 200 ", header("x-beamline-freshness", Headers), " ",
                            header("x-beamline-source", Headers), " ", sha256(Body)],
                    {ok, Line, Body};
                false -> {upstream, "the answer is not one JSON object of at most 10 MiB"}
            end;
        Other -> failure(Other)
    end;
call({put, T, P, Document}, Client) ->
    case request(put, path([T, P]), Document, Client) of
        {Status, Headers, _} when Status =:= 200; Status =:= 201 ->
            {ok, written("put", Status, Headers), ""};
        {404, _, _} = Answer -> {upstream, refusal(Answer)};
        Other -> failure(Other)
    end;
call({delete, T, P}, Client) ->
    case request(delete, path([T, P]), Client) of
        {Status, Headers, _} when Status =:= 200; Status =:= 204 ->
            {ok, written("delete", Status, Headers), ""};
        Other -> failure(Other)
    end;
call({list, T}, Client) ->
    case request(get, path([T]), Client) of
        {200, _, Body} ->
            case listed(Body) of
                {ok, Documents} ->
                    {ok, io_lib:format("ok list 200 ~b ~ts", [length(Documents), sha256(Body)]), Body};
                error -> {upstream, "the answer is not a list of policies"}
            end;
        Other -> failure(Other)
    end.

failure({404, _, _}) -> not_found;
failure({failed, Reason}) -> {unreachable, Reason};
failure(Answer) -> {upstream, refusal(Answer)}.

refusal({Status, _, Body}) ->
    io_lib:format("the policy store answered ~b~ts", [Status, message(Body)]).

%% The store's own words, where its error body has them: {"error": {"message": ...}}.
message(Body) ->
    case is_object(Body) andalso proplists:get_value(<<"error">>, members(Body)) of
        <<${, _/binary>> = Error -> [": ", proplists:get_value(<<"message">>, members(Error), "")];
        _ -> ""
    end.

written(Verb, Status, Headers) ->
    Queued = [" queued" || header("x-beamline-write", Headers) =:= "queued"],
    io_lib:format("ok ~ts ~b~ts", [Verb, Status, Queued]).

path(Ids) -> ["/api/v1/policies" | [["/", uri_string:quote(Id)] || Id <- Ids]].

request(Method, Path, Client) ->
    send(Method, {url(Path, Client), []}).

request(Method, Path, Document, Client) ->
    send(Method, {url(Path, Client), [], "application/json", Document}).

url(Path, #client{origin = Origin}) -> lists:flatten([Origin | Path]).

send(Method, Request) ->
    Limits = [{timeout, ?TIMEOUT_MS}, {connect_timeout, ?TIMEOUT_MS}, {autoredirect, false}],
    case httpc:request(Method, Request, Limits, [{body_format, binary}], ?PROFILE) of
        {ok, {{_, Status, _}, Headers, Body}} -> {Status, Headers, Body};
        {error, timeout} -> {failed, io_lib:format("no answer within ~b ms", [?TIMEOUT_MS])};
        {error, {failed_connect, Details}} -> {failed, ["cannot connect: ", cause(Details)]};
        {error, Reason} -> {failed, io_lib:format("the connection failed: ~0tp", [Reason])}
    end.

cause(Details) ->
    case [Reason || {Family, _, Reason} <- Details, Family =/= to_address] of
        [Reason | _] when is_atom(Reason) -> inet:format_error(Reason);
        _ -> io_lib:format("~0tp", [Details])
    end.

header(Name, Headers) -> proplists:get_value(Name, Headers, "-").

sha256(Body) -> string:lowercase(binary:encode_hex(crypto:hash(sha256, Body))).

%% === JSON: enough to tell a document from damage, and to take a list apart ===

%% OTP 25 has no JSON library. These walk over one value and return what follows it;
%% the bytes of a value are therefore what lies between two such places.

is_object(Body) -> whole(Body, ${).

whole(Body, _) when byte_size(Body) > ?MAX_BODY -> false;
whole(Body, First) ->
    case space(Body) of
        <<First, _/binary>> = Value ->
            try space(skip(Value)) =:= <<>>
            catch throw:bad_json -> false
            end;
        _ -> false
    end.

%% Either a bare array of documents or {"policies": [...]}, each with its policy_id.
listed(Body) ->
    try
        Array = case whole(Body, $[) of
            true -> space(Body);
            false ->
                is_object(Body) orelse throw(bad_json),
                proplists:get_value(<<"policies">>, members(Body))
        end,
        {ok, [{policy_id(Document), Document} || Document <- elements(Array)]}
    catch
        throw:bad_json -> error
    end.

policy_id(Document) ->
    case is_object(Document) andalso proplists:get_value(<<"policy_id">>, members(Document)) of
        <<$", Quoted/binary>> -> binary_to_list(binary:part(Quoted, 0, byte_size(Quoted) - 1));
        _ -> throw(bad_json)
    end.

elements(<<$[, Rest/binary>>) -> elements(space(Rest), []);
elements(_) -> throw(bad_json).

elements(<<$], _/binary>>, Found) -> lists:reverse(Found);
elements(<<$,, Rest/binary>>, Found) -> elements(space(Rest), Found);
elements(Value, Found) ->
    Rest = skip(Value),
    elements(space(Rest), [before(Rest, Value) | Found]).

members(Body) ->
    <<${, Rest/binary>> = space(Body),
    members(space(Rest), []).

members(<<$}, _/binary>>, Found) -> Found;
members(<<$,, Rest/binary>>, Found) -> members(space(Rest), Found);
members(<<$", _/binary>> = Key, Found) ->
    <<$:, Rest/binary>> = space(After = skip(Key)),
    Value = space(Rest),
    Next = skip(Value),
    Name = binary:part(Key, 1, byte_size(Key) - byte_size(After) - 2),
    members(space(Next), [{Name, before(Next, Value)} | Found]).

before(Rest, Whole) -> binary:part(Whole, 0, byte_size(Whole) - byte_size(Rest)).

space(<<C, Rest/binary>>) when C =:= $\s; C =:= $\t; C =:= $\n; C =:= $\r -> space(Rest);
space(Rest) -> Rest.

skip(<<${, Rest/binary>>) ->
    skip_items(space(Rest), $}, fun(Item) ->
        case space(skip_string(Item)) of
            <<$:, Value/binary>> -> skip(space(Value));
            _ -> throw(bad_json)
        end
    end);
skip(<<$[, Rest/binary>>) -> skip_items(space(Rest), $], fun skip/1);
skip(<<$", _/binary>> = String) -> skip_string(String);
skip(<<"true", Rest/binary>>) -> Rest;
skip(<<"false", Rest/binary>>) -> Rest;
skip(<<"null", Rest/binary>>) -> Rest;
skip(Other) ->
    case re:run(Other, "^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][-+]?[0-9]+)?", [{capture, first}]) of
        {match, [{0, Length}]} -> binary:part(Other, Length, byte_size(Other) - Length);
        nomatch -> throw(bad_json)
    end.

skip_items(<<Close, Rest/binary>>, Close, _) -> Rest;
skip_items(Item, Close, Skip) ->
    case space(Skip(Item)) of
        <<$,, Rest/binary>> ->
            case space(Rest) of
                <<Close, _/binary>> -> throw(bad_json);
                Next -> skip_items(Next, Close, Skip)
            end;
        <<Close, Rest/binary>> -> Rest;
        _ -> throw(bad_json)
    end.

skip_string(<<$", Rest/binary>>) -> in_string(Rest);
skip_string(_) -> throw(bad_json).

in_string(<<$", Rest/binary>>) -> Rest;
in_string(<<$\\, $u, Hex:4/binary, Rest/binary>>) ->
    re:run(Hex, "^[0-9a-fA-F]{4}$", [{capture, none}]) =:= match orelse throw(bad_json),
    in_string(Rest);
in_string(<<$\\, C, Rest/binary>>) ->
    lists:member(C, "\"\\/bfnrt") orelse throw(bad_json),
    in_string(Rest);
in_string(<<C/utf8, Rest/binary>>) when C >= 16#20, C =/= $\\ -> in_string(Rest);
in_string(_) -> throw(bad_json).

%% === output ===

complain(Format, Arguments) -> io:format(standard_error, Format ++ "~n", Arguments).

%% Standard output is the answers' alone; OTP would log to it.
log_to_stderr() ->
    _ = logger:remove_handler(default),
    ok = logger:add_handler(default, logger_std_h, #{config => #{type => standard_error}}).
