-- 2.3 changes nothing that the miniature keeps; its number is what a backup notes.

SELECT 1;
