---------------------------- MODULE Generations ----------------------------
(* The stock's generations: batches write the live one in their own         *)
(* transactions, a projector follows the standby, an operator builds, swaps, *)
(* rolls back and drops. One action is one statement or one transaction      *)
(* whose locks nobody can look behind; any process may die at any time.      *)
(* MENDED: the statements that read, hold and move a checkpoint refuse the   *)
(* live generation themselves. Without it only an earlier read does.         *)
EXTENDS Naturals

CONSTANTS MENDED, GENERATIONS, ENTRIES, BATCHES

Entries == 1 .. ENTRIES
Numbers == 1 .. GENERATIONS
Followers == {"projector", "operator"}
None == 0

VARIABLES
    head,      \* the journal's last position
    live,      \* the head's word which generation batches write
    status,    \* of each generation, as the pointer has it
    position,  \* its checkpoint, which stands still while batches write it
    folded,    \* how often each entry is in its rows
    batch,     \* of each batch: the step it is at and the generation it loaded
    follower   \* the same, and the checkpoint it read

vars == <<head, live, status, position, folded, batch, follower>>

Idle == [at |-> "idle", generation |-> None, read |-> 0]

Init ==
    /\ head = 0
    /\ live = 1
    /\ status = [g \in Numbers |-> IF g = 1 THEN "live" ELSE "none"]
    /\ position = [g \in Numbers |-> 0]
    /\ folded = [g \in Numbers |-> [e \in Entries |-> 0]]
    /\ batch = [b \in BATCHES |-> Idle]
    /\ follower = [f \in Followers |-> Idle]

(* The row of the one goods that all want, in one generation. *)
RowIsFree(g) == \A b \in BATCHES : ~(batch[b].at = "locked" /\ batch[b].generation = g)
(* The generation's row in the pointer. *)
PointerIsFree(g) == \A f \in Followers : ~(follower[f].at = "holds" /\ follower[f].generation = g)

-----------------------------------------------------------------------------
(* A batch reads which generation is live, locks the row, seals. *)

Load(b) ==
    /\ batch[b].at = "idle" /\ head < ENTRIES
    /\ batch' = [batch EXCEPT ![b] = [Idle EXCEPT !.at = "loaded", !.generation = live]]
    /\ UNCHANGED <<head, live, status, position, folded, follower>>

Lock(b) ==
    /\ batch[b].at = "loaded" /\ RowIsFree(batch[b].generation)
    /\ batch' = [batch EXCEPT ![b].at = "locked"]
    /\ UNCHANGED <<head, live, status, position, folded, follower>>

Seal(b) ==
    /\ batch[b].at = "locked" /\ batch[b].generation = live /\ head < ENTRIES
    /\ head' = head + 1
    /\ folded' = [folded EXCEPT ![live][head + 1] = @ + 1]
    /\ batch' = [batch EXCEPT ![b] = Idle]
    /\ UNCHANGED <<live, status, position, follower>>

(* It dies, or its seal is refused because another generation is live. *)
Undo(b) ==
    /\ batch[b].at # "idle"
    /\ batch' = [batch EXCEPT ![b] = Idle]
    /\ UNCHANGED <<head, live, status, position, folded, follower>>

-----------------------------------------------------------------------------
(* Who follows looks at what there is, reads a checkpoint, holds it, folds.  *)

Wanted(f) == IF f = "projector" THEN {"live", "standby"} ELSE {"building", "standby"}
Movable(f, g) == status[g] \in Wanted(f) /\ (MENDED => status[g] # "live")

Look(f, g) ==
    /\ follower[f].at = "idle"
    /\ status[g] \in Wanted(f) \ {"live"}
    /\ follower' = [follower EXCEPT ![f] = [Idle EXCEPT !.at = "looked", !.generation = g]]
    /\ UNCHANGED <<head, live, status, position, folded, batch>>

Read(f) ==
    LET g == follower[f].generation IN
    /\ follower[f].at = "looked" /\ Movable(f, g) /\ position[g] < head
    /\ follower' = [follower EXCEPT ![f].at = "read", ![f].read = position[g]]
    /\ UNCHANGED <<head, live, status, position, folded, batch>>

Hold(f) ==
    LET g == follower[f].generation IN
    /\ follower[f].at = "read" /\ Movable(f, g) /\ position[g] = follower[f].read
    /\ PointerIsFree(g)
    /\ follower' = [follower EXCEPT ![f].at = "holds"]
    /\ UNCHANGED <<head, live, status, position, folded, batch>>

Fold(f) ==
    LET g == follower[f].generation
        e == follower[f].read + 1 IN
    /\ follower[f].at = "holds" /\ RowIsFree(g) /\ Movable(f, g)
    /\ folded' = [folded EXCEPT ![g][e] = @ + 1]
    /\ position' = [position EXCEPT ![g] = e]
    /\ follower' = [follower EXCEPT ![f] = Idle]
    /\ UNCHANGED <<head, live, status, batch>>

(* It dies, or finds that there is nothing to do. *)
Leave(f) ==
    /\ follower[f].at # "idle"
    /\ follower' = [follower EXCEPT ![f] = Idle]
    /\ UNCHANGED <<head, live, status, position, folded, batch>>

-----------------------------------------------------------------------------
(* The operator. A swap is one transaction: it holds the pointer and the     *)
(* head, applies the rest, and says where the old generation stands.         *)

Begin(g) ==
    /\ status[g] = "none" /\ \A h \in Numbers : status[h] # "building"
    /\ \A h \in 1 .. (g - 1) : status[h] # "none"
    /\ status' = [status EXCEPT ![g] = "building"]
    /\ UNCHANGED <<head, live, position, folded, batch, follower>>

Swap(g) ==
    /\ follower["operator"].at = "idle" /\ status[g] \in {"building", "standby"}
    /\ \A h \in Numbers : PointerIsFree(h)
    /\ position[g] < head => RowIsFree(g)
    /\ folded' = [folded EXCEPT ![g] = [e \in Entries |->
                      IF e \in (position[g] + 1) .. head THEN folded[g][e] + 1 ELSE folded[g][e]]]
    /\ position' = [position EXCEPT ![g] = head, ![live] = head]
    /\ status' = [status EXCEPT ![g] = "live", ![live] = "standby"]
    /\ live' = g
    /\ UNCHANGED <<head, batch, follower>>

(* A number is never given twice. *)
Drop(g) ==
    /\ status[g] \in {"standby", "building"} /\ PointerIsFree(g)
    /\ status' = [status EXCEPT ![g] = "dropped"]
    /\ UNCHANGED <<head, live, position, folded, batch, follower>>

-----------------------------------------------------------------------------
Next ==
    \/ \E b \in BATCHES : Load(b) \/ Lock(b) \/ Seal(b) \/ Undo(b)
    \/ \E f \in Followers : Read(f) \/ Hold(f) \/ Fold(f) \/ Leave(f) \/ \E g \in Numbers : Look(f, g)
    \/ \E g \in Numbers : Begin(g) \/ Swap(g) \/ Drop(g)

Spec == Init /\ [][Next]_vars

(* What people read and batches decide by: every entry, once. *)
LiveIsRight == \A e \in Entries : folded[live][e] = (IF e <= head THEN 1 ELSE 0)
(* What may become live: every entry up to its checkpoint, once. *)
OthersAreRight == \A g \in Numbers : status[g] \in {"building", "standby"} =>
    \A e \in Entries : folded[g][e] = (IF e <= position[g] THEN 1 ELSE 0)
OneIsLive == \A g \in Numbers : status[g] = "live" <=> g = live
=============================================================================
