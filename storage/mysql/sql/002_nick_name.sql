-- gin-chat-demo asks for a nick name at registration and then has no column for it. Whatever characters the table has
-- otherwise, this one holds all of them.
ALTER TABLE `user` ADD COLUMN `nick_name` varchar(255) CHARACTER SET utf8mb4 NULL
